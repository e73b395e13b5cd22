"""Speech for a domain: sentences, voices, clips."""
