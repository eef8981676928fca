{# Fails when what is applied to a feature view lies further behind its own now than `max_lag` (an interval). #}
{% test feature_freshness(model, max_lag='5 minutes') %}
  select name, frontier, now, now - frontier as lag
  from tidemark.feature_views
  where name = '{{ model.identifier }}'
    and (frontier is null or now - frontier > interval '{{ max_lag }}')
{% endtest %}
