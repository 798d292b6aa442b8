"""The response cache: identity, exact tiers, semantic tier, guards, calibration."""
