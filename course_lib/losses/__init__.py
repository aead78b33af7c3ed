"""Loss functions: logits in, one number in nats out."""
