"""What every HTTP front shares: error bodies, API keys, admission limits, SSE framing."""
