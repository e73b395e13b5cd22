"""What was moved, by whom and why: records, approvals, decisions, moves."""
