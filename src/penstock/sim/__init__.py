"""The production scheduler, block pool, router and autoscaler on a virtual clock. Never reaches
torch."""
