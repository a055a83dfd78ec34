"""The control plane: hubs and provisioning services as resources."""
