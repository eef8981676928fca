{#
  A training set: the rows of the model's SELECT, with what they were made from.

  Settings: refresh (true: every run makes its rows anew; false, the default: only another statement or --full-refresh does),
  options (WITH of CREATE TRAINING SET).
#}
{% materialization training_set, adapter='postgres' %}
  {%- set target = this.incorporate(type='table') -%}
  {%- set options = tidemark.with_options(tidemark.setting('options', {})) -%}
  {%- set mark = tidemark.mark(options ~ sql) -%}

  {{ run_hooks(pre_hooks, inside_transaction=False) }}
  {{ run_hooks(pre_hooks, inside_transaction=True) }}

  {%- set existing = tidemark.definition_of(target, 'training_sets') -%}
  {%- set unchanged = existing is not none and mark in existing and not should_full_refresh() -%}
  {% if unchanged and not tidemark.setting('refresh', false) %}
    {{ noop_statement('main', 'UNCHANGED') }}
  {% elif unchanged %}
    {% call statement('main') -%} refresh training set {{ target }} {%- endcall %}
  {% else %}
    {% do run_query('drop training set if exists ' ~ target) %}
    {% call statement('main') -%}
      create training set {{ target }} {{ options }} as
      /* {{ mark }} */
      {{ sql }}
    {%- endcall %}
  {% endif %}
  {% do tidemark.comments('training set', target) %}

  {{ run_hooks(post_hooks, inside_transaction=True) }}
  {{ adapter.commit() }}
  {{ run_hooks(post_hooks, inside_transaction=False) }}
  {{ return({'relations': [target]}) }}
{% endmaterialization %}
