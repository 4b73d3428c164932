"""Where settings come from: flags before the environment before a file before defaults."""
