{# Of a training set: as many rows as the labels that it was made of. `where` says which of them. #}
{% test row_count_equals_spine(model, spine, where='true') %}
  select * from (
    select (select count(*) from {{ model }}) as rows_made, (select count(*) from {{ spine }} where {{ where }}) as labels
  ) as counted
  where rows_made <> labels
{% endtest %}
