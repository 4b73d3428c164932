"""Jobs: answers that nobody waits for, and the webhooks that tell of them."""
