"""Everpost: an email-sending API that stays up."""
