"""Methods that merge whole networks: zipping, transport, distillation."""
