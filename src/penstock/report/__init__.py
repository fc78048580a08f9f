"""Numbers for people: what machine they come from, how they spread, tables of them."""
