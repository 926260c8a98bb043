"""Descriptions of the products that decide: candidates, context, reward, policy. Pure code."""
