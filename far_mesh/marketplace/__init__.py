"""The marketplace: a bank and a window in front of a mesh. It is never on the path of an activation.

Each business noun is a folder with the same few files: ``endpoints`` (HTTP in, HTTP out), ``service`` (what happens),
``repository`` (SQL), ``schemas`` (shapes). Knowing one room is knowing all.
"""
