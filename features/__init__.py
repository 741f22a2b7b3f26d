"""What is computed: feature classes, the registry, the graph and the engine that runs it over chunks."""
