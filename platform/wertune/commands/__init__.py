"""The commands, one file a group; heavy imports wait for their command."""
