"""The same inference behind the doors that other servers have (/v1), so that their clients work unchanged."""
