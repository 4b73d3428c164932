"""What those who lend their machines see of their money: what was earned, what was paid, and the proof of each unit."""
