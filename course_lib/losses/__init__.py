"""Loss functions: a batch of logits or scores in, one number out."""
