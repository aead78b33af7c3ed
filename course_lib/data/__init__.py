"""Pictures, points and labels: where they come from, and how labels are hidden."""
