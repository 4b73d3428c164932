"""What an account has used, day by day, by model and by API key."""
