"""reasoning-gym's data sets as environments, `reasoning_gym/<data set>-v0`. Imports the package when one is made."""
