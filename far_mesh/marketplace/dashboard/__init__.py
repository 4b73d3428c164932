"""The dashboard: the pages for people who would rather look than read, served from memory."""
