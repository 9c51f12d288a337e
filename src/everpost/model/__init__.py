"""The words of the house: message, recipient, outcome, event, states, errors.

Pure values and pure functions. Nothing here opens a file, a socket or a clock; nothing here knows a
store, a vendor's API or a protocol's bytes.
"""
