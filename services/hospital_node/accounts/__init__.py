"""Accounts of the hospital's own staff: who they are, what they may do, and their sessions."""
