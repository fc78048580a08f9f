"""What the simulator costs and how right it is."""
