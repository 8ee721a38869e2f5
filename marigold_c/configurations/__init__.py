"""YAML files as trees that know where each value stands, and models of what may stand in them."""
