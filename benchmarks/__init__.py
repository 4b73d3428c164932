"""Speed and sizes, measured."""
