"""A web page to speak to a version: plain HTML, style and script beside a small server."""
