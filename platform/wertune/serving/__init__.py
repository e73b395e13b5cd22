"""A registered version at work: over HTTP, on files, on a page, handed out in other forms."""
