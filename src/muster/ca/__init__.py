"""The certificate authority: decides, records, signs."""
