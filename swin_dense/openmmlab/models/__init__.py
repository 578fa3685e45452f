"""Heads, necks and losses that mmdet and mmseg lack, one file per paper."""
