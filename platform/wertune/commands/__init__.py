"""Commands that the command line is given, one file a group; heavy imports wait for their command."""
