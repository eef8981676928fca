{# Of a training set: no feature is of a time after its label's. `feature_time` are columns with the event times of what was joined. #}
{% test no_leakage(model, label_time, feature_time) %}
  select * from {{ model }}
  where {% for column in ([feature_time] if feature_time is string else feature_time) -%}
    {{ column }} > {{ label_time }}{% if not loop.last %} or {% endif %}
  {%- endfor %}
{% endtest %}
