"""A long recording and its transcript without times: when each sentence is said, and how sure that is."""
