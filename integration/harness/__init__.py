"""The daemon, guests, stores and the load generator as objects, for the tests beside this directory."""
