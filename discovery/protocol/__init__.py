"""The words all rooms share: ids, announcements, messages, receipts, errors.

Plain types with no input or output. Nothing here imports torch, hivemind or a web framework.
"""
