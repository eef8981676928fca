{#
  A training set: the rows of the model's SELECT, with a record of what they were computed from.

  Settings: complete, as in CREATE TRAINING SET … WITH.
  A run computes it again by what there is now. Another statement: the new set is made beside the old one and takes its name; the old one goes, and
  what reads it goes too (as dbt drops tables: CASCADE).
#}
{% materialization training_set, adapter='postgres' %}
  {%- set target = this.incorporate(type='table') -%}
  {%- set made = target.incorporate(path={'identifier': target.identifier ~ '__dbt_tmp'}) -%}
  {%- set options = tidemark.with_options({'complete': tidemark.setting('complete')}) -%}
  {%- set mark = tidemark.mark(options ~ sql) -%}

  {{ run_hooks(pre_hooks, inside_transaction=False) }}
  {{ run_hooks(pre_hooks, inside_transaction=True) }}

  {%- set existing = tidemark.definition_of(target, 'training_sets', 'statement') -%}
  {% if existing is not none and mark in existing and not should_full_refresh() %}
    {% call statement('main') -%}
      refresh training set {{ target }}
    {%- endcall %}
  {% else %}
    {% do run_query('drop training set if exists ' ~ made ~ ' cascade') %}
    {% call statement('main') -%}
      create training set {{ made if existing is not none else target }} {{ options }} as
      /* {{ mark }} */
      {{ sql }}
    {%- endcall %}
    {% if existing is not none %}
      {% do run_query('drop training set ' ~ target ~ ' cascade') %}
      {% do run_query('alter training set ' ~ made ~ ' rename to ' ~ adapter.quote(target.identifier)) %}
      {% do tidemark.forget_dropped(target) %}
    {% endif %}
  {% endif %}
  {% do tidemark.comments('training set', target) %}

  {{ run_hooks(post_hooks, inside_transaction=True) }}
  {{ adapter.commit() }}
  {{ run_hooks(post_hooks, inside_transaction=False) }}
  {{ return({'relations': [target]}) }}
{% endmaterialization %}
