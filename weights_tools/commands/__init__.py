"""The commands on weight files, each a module with HELP, add_arguments and run."""
