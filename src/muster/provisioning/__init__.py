"""Device provisioning: attests a device, chooses its hub, has it created there."""
