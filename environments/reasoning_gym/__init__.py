"""reasoning-gym's data sets as environments."""
