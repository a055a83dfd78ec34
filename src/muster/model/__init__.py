"""Records: frozen dataclasses that services exchange and stores keep."""
