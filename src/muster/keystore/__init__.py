"""CA private keys. A key never leaves its keystore."""
