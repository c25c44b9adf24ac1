"""The bundled pairs and families, and how they were trained."""
