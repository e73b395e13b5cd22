"""What every room stands on: errors, settings, text, files, the command line."""
