"""Far Mesh as tools for agents (Model Context Protocol): the same services behind another door."""
