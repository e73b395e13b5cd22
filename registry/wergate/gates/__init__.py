"""What may ship: policy, evidence, decision."""
