"""Damaged weight files by the thousand: no reader may crash, hang or take the memory."""
