"""What a message advises, works: every `todo=` in textcls/ has a test that follows it. One without is found here."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

ADVICE = "unit/test_advice.py::"
LAYOUT = "unit/test_csv_layout.py::"
FORMATS = "unit/test_file_formats.py::"
REMEDIES = "unit/test_remedies.py::"
NODES = "story/test_changing_nodes.py::"
REHEARSAL = "unit/test_rehearsal.py::"
CLUSTER = "unit/test_cluster_joined.py::"
SPELLINGS = "unit/test_spellings.py::"
PRIVATE = "unit/test_private_budget.py::"
BUILD = "unit/test_build.py::"
PLACEHOLDERS = "unit/test_masked_tokens.py::"
AUDIT = "unit/test_audit_run.py::"
FOLDS = "unit/test_side_by_side.py::"
EXCLUSION = "unit/test_exclusion.py::"
MASKED = "unit/test_masked_rows.py::"
DECISIONS = "unit/test_decisions.py::"
ENCRYPTION = "unit/test_encryption.py::"
SEALED = "unit/test_sealed.py::"

# module.function -> a test for each `todo=` in it, which provokes the message and does what it says. Where that takes
# another machine, another version or a person, the test ends at what the message says.
FOLLOWED = {
    "modeling.build._embed": [
        f"{BUILD}test_a_tokenizer_of_another_model_is_no_reason_to_grow",
        f"{BUILD}test_a_model_without_a_table_of_tokens_comes_with_the_setting_that_needs_none",
    ],
    "text.placeholders._check": [f"{PLACEHOLDERS}test_a_tokenizer_that_cannot_have_placeholders_is_refused"],
    "bundle.load_bundle": [f"{ADVICE}test_a_run_s_directory_in_place_of_its_bundle_comes_with_the_bundle"],
    "bundle._verified": [
        f"{ADVICE}test_a_damaged_bundle_can_be_copied_again",
        f"{ADVICE}test_a_damaged_bundle_can_be_copied_again",
        f"{ADVICE}test_a_strange_file_in_a_bundle_can_be_moved_away",
    ],
    "bundle._task_of": ["unit/test_bundle.py::test_a_task_that_this_version_does_not_know_is_refused_by_name"],
    "bundle._check_names": [f"{ADVICE}test_a_file_that_must_not_be_in_a_bundle_can_be_moved_away"],
    "manifest.read_manifest": [
        f"{ADVICE}test_a_damaged_bundle_can_be_copied_again",
        "unit/test_bundle.py::test_another_format_version_is_refused_with_the_one_that_is_read",
        f"{ADVICE}test_a_damaged_bundle_can_be_copied_again",
    ],
    "commands.predict._run": [
        f"{ADVICE}test_an_encoding_of_csv_parts_comes_with_the_format_that_has_one",
        f"{ADVICE}test_rows_to_label_come_with_the_way_to_choose_them",
        "unit/test_written_masks.py::test_columns_are_masked_only_with_a_bundle_that_masks",
    ],
    "commands.serve._run": [f"{ADVICE}test_a_certificate_without_its_key_can_go_or_be_completed"],
    "commands.train.read_recipe": [f"{ADVICE}test_a_forgotten_csv_or_out_can_be_named"] * 2,
    "data.checks._refuse_no_rows": [f"{SPELLINGS}test_a_filter_that_no_row_passes_is_told_with_what_the_column_holds"],
    "data.checks._refuse_rejects": [
        f"{REMEDIES}test_an_empty_label_column_comes_with_the_column_that_holds_labels",
        f"{SPELLINGS}test_labels_that_are_not_among_those_asked_for_are_told_with_what_helps",
    ],
    "data.checks._refuse_labels": [
        f"{ADVICE}test_rows_without_any_label_come_with_the_settings_to_check",
        f"{ADVICE}test_a_label_that_some_rows_have_and_others_lack_can_be_told_from_none",
        f"{ADVICE}test_one_label_column_comes_with_the_settings_that_read_its_values_as_labels",
        f"{ADVICE}test_one_single_label_can_come_from_another_column",
        f"{ADVICE}test_one_single_label_can_come_from_another_column",
    ],
    "data.checks.refuse_conflicts": [f"{ADVICE}test_conflicts_that_are_rejects_come_with_the_settings_that_train"],
    "data.label_columns.with_label_columns": [f"{ADVICE}test_a_pattern_of_label_columns_can_be_corrected"],
    "data.checks.refuse_empty_splits": [
        f"{SPELLINGS}test_a_label_without_training_rows_can_be_left_out_as_advised",
        f"{ADVICE}test_a_split_without_a_row_comes_with_a_share_that_gives_it_one",
    ],
    "data.checks.refuse_reserved": [
        f"{SPELLINGS}test_a_label_called_abstain_is_refused_where_the_classifier_may_abstain",
        f"{SPELLINGS}test_a_label_called_as_an_answer_of_several_labels_is_refused_and_can_be_renamed",
    ],
    "data.csv_head._refuse_wide": [f"{LAYOUT}test_utf_16_comes_with_the_setting_that_reads_it"],
    "data.csv_layout.choose_layout": [
        f"{LAYOUT}test_a_quote_in_the_header_that_is_never_closed_is_told_with_its_line",
        f"{ADVICE}test_a_column_that_stands_twice_can_be_renamed",
    ],
    "data.csv_layout._missing_position": [f"{ADVICE}test_a_position_beyond_the_fields_can_be_corrected"],
    "data.csv_layout._missing_columns": [
        f"{LAYOUT}test_a_missing_column_comes_with_the_setting_that_names_the_closest"
    ],
    "data.csv_records._Lines.__next__": [
        "unit/test_csv_shards.py::test_bytes_that_the_encoding_cannot_stand_for_are_refused",
        f"{ADVICE}test_a_line_without_an_end_comes_with_a_limit_that_takes_it",
    ],
    "data.csv_scan.scan_range": [f"{ADVICE}test_a_file_that_shrinks_is_read_once_nothing_writes_there"],
    "data.decisions.refuse_unmet": [
        f"{DECISIONS}test_decisions_about_rows_that_are_gone_are_refused_until_their_lines_are"
    ],
    "data.decisions._unknown": [f"{DECISIONS}test_a_label_that_no_row_has_is_refused_once_the_rows_are_known"],
    "data.decisions._read": [f"{DECISIONS}test_what_is_no_audit_is_refused_until_an_audit_is_named"],
    "data.decisions._rows": [f"{DECISIONS}test_what_is_no_audit_is_refused_until_an_audit_is_named"] * 2,
    "data.decisions._records": [f"{DECISIONS}test_what_is_no_audit_is_refused_until_an_audit_is_named"],
    "data.checks._refuse_all_excluded": [f"{EXCLUSION}test_what_takes_out_every_row_is_refused_until_it_does_not"],
    "data.exclusion_files._entries": [f"{EXCLUSION}test_a_file_that_is_none_of_these_is_refused_until_it_is_one"] * 2,
    "data.exclusion_files._hashes": [
        f"{EXCLUSION}test_a_line_among_hashes_that_is_none_is_refused_and_not_repeated",
        f"{EXCLUSION}test_hashes_of_other_text_settings_are_refused_until_they_are_made_again",
    ],
    "data.exclusion_files._no_key": [f"{EXCLUSION}test_a_file_that_is_none_of_these_is_refused_until_it_is_one"],
    "data.exclusion_files._no_row": [f"{EXCLUSION}test_a_row_that_cannot_be_read_is_refused_and_not_repeated"],
    "commands.forget._run": [f"{EXCLUSION}test_a_file_of_hashes_does_what_the_texts_do_and_holds_none"],
    "data.file_formats.refuse_other_formats": [
        f"{FORMATS}test_a_file_compressed_otherwise_than_its_name_says_comes_with_its_right_name"
    ],
    "data.file_formats._refuse_format": [f"{FORMATS}test_a_columnar_file_comes_with_the_command_that_makes_a_csv"],
    "data.file_formats._Decompressed._explained": [
        f"{FORMATS}test_what_is_there_of_a_cut_off_gzip_file_can_be_used",
        f"{FORMATS}test_anything_else_behind_compressed_data_is_told",
        f"{FORMATS}test_damaged_compressed_data_are_told",
    ],
    "data.input_files.expand": [
        f"{ADVICE}test_a_missing_file_comes_with_the_one_that_is_there",
        f"{ADVICE}test_files_that_are_named_twice_can_be_named_once",
    ],
    "data.input_files._not_a_file": [f"{ADVICE}test_a_directory_comes_with_the_pattern_of_its_files"],
    "data.rows._reordered": [
        f"{REMEDIES}test_a_second_header_in_another_order_comes_with_the_commands_that_cut_the_file"
    ],
    "commands.mask._run": [f"{MASKED}test_a_key_file_comes_with_what_it_is_for"],
    "masking.masked_rows.RowMasker._above_rows": [
        f"{MASKED}test_a_first_row_in_place_of_a_header_is_refused_and_can_be_read_as_a_row"
    ],
    "masking.pseudonyms.read_key": [
        f"{MASKED}test_a_key_that_is_missing_short_or_no_secret_is_refused_without_being_told"
    ]
    * 3,
    "masking.run._refuse_delimiter": [f"{MASKED}test_a_delimiter_that_is_in_a_placeholder_is_refused_without_quotes"],
    "masking.run._refuse_rejects": [
        "local_ray/test_mask.py::test_rows_that_cannot_be_parsed_are_counted_and_too_many_of_them_end_the_job"
    ],
    "masking.settings.mask_settings": [
        f"{MASKED}test_a_mask_job_without_anything_to_mask_or_with_other_settings_is_refused",
        "unit/test_mask_patterns.py::test_a_wrong_kind_is_told_with_the_list_that_is_meant",
    ],
    "settings.mask_names.kinds": ["unit/test_mask_patterns.py::test_a_wrong_kind_is_told_with_the_list_that_is_meant"]
    * 2,
    "settings.mask_patterns.named_patterns": ["unit/test_mask_patterns.py::test_a_pattern_without_a_name_is_given_one"],
    "settings.mask_patterns._refuse_controls": [
        "unit/test_mask_patterns.py::test_a_border_of_a_word_in_double_quotes_is_not_accepted_as_a_backspace"
    ],
    "settings.privacy.PrivacySpec._is_a_budget": [
        "unit/test_mask_patterns.py::test_an_epsilon_that_is_no_budget_is_told_a_usual_one"
    ],
    "audit.run._claim": [f"{AUDIT}test_an_audit_continues_only_with_resume_and_its_own_settings"] * 3,
    "audit.memory.refuse_too_large": [
        f"{AUDIT}test_rows_that_do_not_fit_into_memory_are_refused_and_their_parts_are_not"
    ],
    "audit.side_by_side._Fold._death": [f"{FOLDS}test_a_process_that_dies_ends_the_others_and_all_can_go_on"] * 2,
    "audit.run._by_bundle": [f"{AUDIT}test_a_fold_of_other_rows_is_refused_until_they_are_back"],
    "commands.audit._run": [f"{AUDIT}test_a_recipe_of_one_fold_and_a_private_one_are_audited_without_it"] * 2,
    "batch.settings._check_inputs": [
        "unit/test_pairs.py::test_a_batch_job_reads_the_kind_of_input_that_its_bundle_scores"
    ]
    * 2,
    "batch.settings.nothing_scored": [
        "local_ray/test_predict.py::test_where_no_row_can_be_scored_the_parts_say_why_and_the_todo_leads_on"
    ],
    "batch.actor_pool.plan_pool": [f"{ADVICE}test_more_workers_than_fit_come_with_settings_that_do"],
    "batch.actor_pool._given_up": ["story/test_batch.py::test_killed_job_goes_on_and_ends_as_if_nothing_had_happened"],
    "output.claim.claim": [f"{ADVICE}test_an_out_that_holds_something_can_be_left_for_a_new_one"] * 2,
    "output.claim.claim_or_continue": [
        f"{ADVICE}test_predictions_begun_otherwise_go_on_with_the_same_command",
        "local_ray/test_mask.py::test_an_interrupted_job_continues_with_its_parts_and_its_key",
    ],
    "output.json_files.damaged": [f"{ADVICE}test_an_out_that_holds_something_can_be_left_for_a_new_one"],
    "output.lock._busy": ["unit/test_lock.py::test_a_second_job_is_refused_until_the_first_has_ended"],
    "inference.embeddings.Embedder._of": [
        "unit/test_embeddings.py::test_more_tokens_than_the_model_has_positions_come_with_the_limit"
    ],
    "modeling.pretrained.find_model": [
        f"{ADVICE}test_weights_that_would_be_unpickled_come_with_the_command_that_converts_them",
        f"{ADVICE}test_a_hash_of_weights_in_parts_comes_with_the_setting_that_asks_for_none",
        f"{ADVICE}test_another_hash_comes_with_the_setting_that_takes_the_file",
    ],
    "modeling.pretrained._find": [
        f"{ADVICE}test_a_path_that_leads_nowhere_can_be_corrected",
        "unit/test_pretrained.py::test_a_hub_name_without_a_network_is_refused_with_a_way_out",
    ],
    "modeling.pretrained.read_config": [f"{ADVICE}test_a_damaged_configuration_can_be_copied_again"] * 2,
    "on_ray.cluster._found": [
        f"{CLUSTER}test_an_address_that_is_no_head_s_is_told",
        f"{CLUSTER}test_an_address_that_is_no_head_s_is_told",
        f"{CLUSTER}test_auto_where_no_ray_runs_is_told",
    ],
    "on_ray.cluster._ask": [
        f"{CLUSTER}test_certificates_that_are_not_there_are_told",
        f"{CLUSTER}test_what_is_wrong_with_an_address_is_told",
    ],
    "on_ray.cluster._no_entry": ["story/test_encrypted_cluster.py::test_a_token_in_the_home_directory_is_used"],
    "on_ray.session._refusal": [f"{CLUSTER}test_an_error_of_ray_s_own_that_the_user_can_mend_says_how"] * 3
    + [f"{CLUSTER}test_ray_is_started_again_where_a_busy_machine_was_too_slow"],
    "settings.recipe_file.parse_recipe": [
        f"{ADVICE}test_a_recipe_that_is_no_yaml_can_be_corrected_where_the_message_says"
    ],
    "settings.data.DataSpec._texts_or_pair": [f"{ADVICE}test_a_pair_takes_the_place_of_the_text_columns_as_advised"],
    "settings.data.DataSpec._labels_fit_the_task": [
        f"{ADVICE}test_a_union_of_labels_comes_with_the_settings_that_keep_each_label_whole"
    ],
    "settings.recipe_file.resolve": [f"{ADVICE}test_an_unknown_key_is_among_those_that_are_listed"],
    "settings.recipe_file._apply": [f"{ADVICE}test_a_value_that_is_no_yaml_comes_with_the_set_that_is_one_name"],
    "serving.deployment.read_key": ["unit/test_deployment.py::test_a_key_is_found_once_it_is_put_there"] * 2,
    "serving.local.haproxy.failure": [
        f"{ADVICE}test_a_port_that_is_taken_and_an_address_of_a_cluster_can_be_changed",
        "house/test_cluster_files.py::test_the_lock_holds_what_the_project_asks_for",
    ],
    "serving.local.service.run_service": [
        "unit/test_command_line.py::test_serve_needs_linux_and_says_so",
        f"{ADVICE}test_a_port_that_is_taken_and_an_address_of_a_cluster_can_be_changed",
    ],
    "serving.local.service._refuse_a_taken_port": [
        f"{ADVICE}test_a_port_that_is_taken_and_an_address_of_a_cluster_can_be_changed"
    ],
    "serving.local.service._wait_until_ready": [
        "story/test_serve.py::test_another_bundle_is_taken_up_under_load_and_a_damaged_one_is_not"
    ]
    * 2,
    "storage.absolute": [f"{ADVICE}test_a_password_in_a_uri_can_be_taken_out"],
    "storage._inside_package": [f"{ADVICE}test_a_package_that_is_missing_can_be_installed"],
    "directories.cache_directory": [
        "unit/test_storage.py::test_without_a_home_directory_copies_lie_among_the_temporary_files"
    ],
    "serving.scorer._other_inputs": [
        "http/test_pairs.py::test_a_hot_reload_changes_the_kind_of_input_only_if_new_labels_are_allowed"
    ],
    "serving.scorer._check_labels": [
        "http/test_api.py::test_a_bundle_with_other_labels_is_refused_unless_the_service_was_started_to_take_them"
    ],
    "directories.download_directory": ["unit/test_storage.py::test_an_empty_remote_directory_cannot_be_downloaded"],
    "directories._taken": [f"{ADVICE}test_a_place_that_is_taken_can_be_cleared_or_avoided"],
    "storage.explained": [
        f"{ADVICE}test_a_missing_file_comes_with_the_one_that_is_there",
        "story/test_faults.py::test_run_goes_on_when_read_only_storage_can_be_written_again",
        "story/test_full_disk.py::test_run_goes_on_when_a_full_disk_has_room_again",
        "story/test_faults.py::test_storage_that_fails_for_a_while_costs_time_and_nothing_else",
    ],
    "text.tokenizer_files._pad_id": [f"{REHEARSAL}test_a_padding_token_named_as_advised_makes_a_decoder_work"],
    "text.tokenizer_files._unloadable": [
        "unit/test_tokenizer.py::test_sentence_pieces_are_refused_with_what_converts_them"
    ],
    "training.checkpoint.check_checkpoint": [f"{ADVICE}test_a_damaged_checkpoint_can_be_removed_for_the_one_before_it"]
    * 3,
    "tracking.mlflow.mlflow_requested": ["unit/test_events.py::test_mlflow_that_is_asked_for_and_missing_is_told"],
    "tracking.mlflow.MlflowRun.__init__": [
        "unit/test_events.py::test_an_mlflow_that_cannot_be_reached_is_told_without_its_password"
    ],
    "training.failures.final_error": [
        "local_ray/test_training.py::test_an_error_of_python_code_in_one_rank_ends_the_run_at_once"
    ],
    "modeling.build.head_of": ["unit/test_build.py::test_the_head_is_the_last_layer_with_an_output_for_each_label"],
    "modeling.precision.refuse_bf16_without_support": [
        "local_ray/test_precision.py::test_bf16_that_a_node_cannot_multiply_is_refused_before_any_row_is_read"
    ],
    "training.model_files.model_here": [
        "local_ray/test_model_files.py::test_files_that_change_while_workers_start_are_refused"
    ],
    "training.private.rehearsal.refuse_without_row_gradients": [
        f"{REHEARSAL}test_a_model_in_which_a_row_has_no_gradient_of_its_own_is_not_trained_privately"
    ],
    "training.private.budget.require_opacus": [f"{PRIVATE}test_opacus_can_be_installed_as_advised"],
    "training.private.budget.budget_of": [
        f"{PRIVATE}test_a_delta_that_allows_to_publish_a_row_comes_with_one_that_does_not"
    ],
    "settings.privacy.refuse_unprivate": [f"{PRIVATE}test_what_is_not_private_comes_with_the_setting_that_is"],
    "training.rehearsed_tokenizer.check_frame": [
        f"{REHEARSAL}test_pairs_whose_tokens_have_types_unlike_bert_s_are_refused"
    ],
    "training.rehearsed_tokenizer.check_vocabulary": [f"{REHEARSAL}test_token_ids_beyond_the_embeddings_are_refused"],
    "training.rehearsal._check_limit": [
        f"{REHEARSAL}test_the_limit_is_the_model_s_positions_and_the_advised_one_works"
    ],
    "training.rehearsed_scores.unusable": [f"{REHEARSAL}test_what_trains_serves_and_what_cannot_is_refused"],
    "training.rehearsed_scores.ExpectedScores.compare": [
        f"{REHEARSAL}test_what_trains_serves_and_what_cannot_is_refused"
    ],
    "training.rehearsal._export": [f"{ADVICE}test_a_rehearsal_without_room_goes_on_when_there_is_some"],
    "training.rehearsed_tokenizer.check_tokenizer": [
        f"{ADVICE}test_a_tokenizer_that_transformers_reads_otherwise_can_be_saved_anew"
    ],
    "training.run.train": ["story/test_full_disk.py::test_run_goes_on_when_a_full_disk_has_room_again"],
    "training.run_dir.RunDir.claim": [
        f"{ADVICE}test_nothing_to_resume_can_be_begun",
        f"{ADVICE}test_an_interrupted_run_can_be_resumed_or_left",
        f"{ADVICE}test_a_run_of_another_recipe_comes_with_the_options_that_resume_it",
        "unit/test_run_dir.py::test_a_run_is_resumed_with_the_recipients_it_began_with_as_advised",
    ],
    "age_keys.checked_recipients": [
        f"{ENCRYPTION}test_a_secret_key_in_place_of_a_public_one_is_refused_and_not_repeated",
        f"{ENCRYPTION}test_what_is_no_public_key_is_refused",
    ],
    "age_keys.identities": [
        f"{ENCRYPTION}test_a_missing_file_of_identities_can_be_named",
        f"{ENCRYPTION}test_what_is_no_identity_is_refused_and_not_repeated_until_it_is_one",
    ],
    "age_keys._identity": [f"{ENCRYPTION}test_what_is_no_identity_is_refused_and_not_repeated_until_it_is_one"],
    "encryption.decrypt": [f"{ENCRYPTION}test_an_encrypted_file_without_an_identity_comes_with_the_ways_to_give_one"],
    "encryption._not_opened": [
        f"{ENCRYPTION}test_what_is_written_comes_back_to_each_recipient_and_to_no_one_else",
        f"{ENCRYPTION}test_a_file_that_is_cut_or_changed_anywhere_is_refused_until_it_is_copied_again",
    ],
    "commands.seal._run": [f"{SEALED}test_a_command_that_cannot_seal_comes_with_what_to_add"] * 3,
    "sealed_directory.open_sealed": [f"{SEALED}test_a_file_without_a_bundle_is_refused_until_one_is_sealed"],
    "sealed_directory._unpack": [
        f"{SEALED}test_a_tar_that_holds_anything_but_files_side_by_side_is_refused",
        f"{SEALED}test_a_file_without_a_bundle_is_refused_until_one_is_sealed",
    ],
    "training.run_dir.claim_for_account": ["unit/test_run_dir.py::test_a_dry_run_lists_rows_only_where_no_run_is"],
    "training.run_dir.RunDir.bind_model": [
        "unit/test_run_dir.py::test_a_run_is_resumed_with_the_very_model_it_began_with"
    ],
    "training.run_dir.RunDir.bind_data": [f"{ADVICE}test_other_rows_can_be_put_back_or_left"],
    "training.attempts._Attempts._recompute_blocks": [
        f"{NODES}test_nodes_that_die_while_reading_and_tokenizing_and_while_training_take_no_row_along"
    ],
    "training.attempts._no_room": ["story/test_faults.py::test_cpus_that_others_use_are_waited_for_up_to_the_bound"],
    "training.attempts._too_many_failures": [
        "story/test_full_disk.py::test_run_goes_on_when_a_full_disk_has_room_again"
    ],
    "training.scaling.plan_training_workers": [f"{ADVICE}test_more_workers_than_fit_come_with_settings_that_do"],
}


def todos() -> Iterator[str]:
    """module.function of each `todo=` in textcls/, but of where errors are rebuilt."""
    for path in sorted((ROOT / "textcls").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT / "textcls").with_suffix("").parts)
        if module != "errors":
            yield from _todos_in(ast.parse(path.read_text(encoding="utf-8")), module)


def _todos_in(node: ast.AST, scope: str) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from _todos_in(child, f"{scope}.{child.name}")
            continue
        if isinstance(child, ast.Call):
            yield from (scope for argument in child.keywords if argument.arg == "todo")
        yield from _todos_in(child, scope)


def test_every_todo_is_followed_by_a_test() -> None:
    found = Counter(todos())
    assert len(found) > 40
    missing = {site: n - len(FOLLOWED.get(site, [])) for site, n in found.items() if n > len(FOLLOWED.get(site, []))}
    assert missing == {}, "provoke the message in a test, do what it says, and name the test in FOLLOWED"
    assert set(FOLLOWED) - set(found) == set(), "these say no todo any more"


def test_the_tests_that_follow_todos_exist() -> None:
    named = {test for tests in FOLLOWED.values() for test in tests}
    written = {
        f"{path.relative_to(ROOT / 'tests').as_posix()}::{node.name}"
        for path in {ROOT / "tests" / test.partition("::")[0] for test in named}
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
    }
    assert named - written == set()
