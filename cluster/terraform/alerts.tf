# Who hears of it: each alert of cluster/monitoring is a policy of Cloud Monitoring that writes to `alert_email`. Another receiver (PagerDuty, a
# webhook) is one more google_monitoring_notification_channel, in the list `channels`.

resource "google_monitoring_notification_channel" "email" {
  display_name = "On call for ${var.cluster_name}"
  type         = "email"

  labels = {
    email_address = var.alert_email
  }

  depends_on = [google_project_service.needed]
}

locals {
  channels = [google_monitoring_notification_channel.email.name]

  # Prometheus' own rule files are the source; the Prometheus operator gets the same (cluster/monitoring/operator).
  rule_groups = flatten([for file in ["rules.yaml", "rules-kubernetes.yaml"] : yamldecode(file("${path.module}/../monitoring/${file}")).groups])
  rules = merge([for group in local.rule_groups : {
    for rule in group.rules : rule.alert => {
      group    = group.name
      interval = group.interval
      query    = rule.expr
      for      = try(rule.for, "0s")
      severity = rule.labels.severity
      summary  = replace(rule.annotations.summary, local.label, "$${metric_or_resource.label.$1}")
      action   = replace(rule.annotations.action, local.label, "$${metric_or_resource.label.$1}")
    }
  }]...)
  label   = "/{{ *\\$labels\\.(\\w+) *}}/" # Prometheus' {{ $labels.name }} is ${metric_or_resource.label.name} here
  seconds = { s = 1, m = 60, h = 3600 }

  # What no metric tells: Kubernetes' events, and what containers print.
  log_alerts = {
    ClickbaitRetrainFailed = {
      filter  = "log_id(\"events\") AND jsonPayload.involvedObject.kind=\"Job\" AND jsonPayload.involvedObject.name=~\"^retrain-\" AND jsonPayload.reason=(\"BackoffLimitExceeded\" OR \"DeadlineExceeded\")"
      summary = "The weekly retraining failed: no candidate was judged"
      action  = "kubectl --namespace ${var.namespace} logs job/NAME, with the job's name of the event; the next try is on Monday, or kubectl create job --from=cronjob/retrain NAME"
    }
    ClickbaitCandidateRefused = {
      filter  = "resource.type=\"k8s_container\" AND resource.labels.container_name=\"retrain\" AND textPayload=~\"^refused: \""
      summary = "The gate refused the weekly retraining's candidate: the canary stays where it is"
      action  = "the same log has the table of checks above this line; those marked FAIL say why"
    }
    ClickbaitAutoscalerRestarts = {
      filter  = "resource.type=\"k8s_container\" AND resource.labels.container_name=\"autoscaler\" AND textPayload=~\"^the autoscaler ended with code \""
      summary = "Ray's autoscaler ended and was started again"
      action  = "once is nothing; where it goes on, the same log has the error above this line, and no worker pod is added or removed"
    }
  }
}

resource "google_monitoring_alert_policy" "rule" {
  for_each = local.rules

  display_name          = each.key
  combiner              = "OR"
  severity              = each.value.severity == "page" ? "CRITICAL" : "WARNING"
  notification_channels = local.channels

  conditions {
    display_name = each.key

    condition_prometheus_query_language {
      query                     = each.value.query
      duration                  = "${tonumber(regex("^\\d+", each.value.for)) * local.seconds[regex("[smh]$", each.value.for)]}s"
      evaluation_interval       = "${tonumber(regex("^\\d+", each.value.interval)) * local.seconds[regex("[smh]$", each.value.interval)]}s"
      labels                    = { severity = each.value.severity }
      rule_group                = each.value.group
      alert_rule                = each.key
      disable_metric_validation = true # the policies are there before the first pod that has the metrics
    }
  }

  documentation {
    subject   = "[${each.value.severity}] ${each.key}"
    content   = "${each.value.summary}.\n\nWhat to do: ${each.value.action}.\n\nMore: docs/on-call.md"
    mime_type = "text/markdown"
  }
}

resource "google_monitoring_alert_policy" "log" {
  for_each = local.log_alerts

  display_name          = each.key
  combiner              = "OR"
  severity              = "WARNING"
  notification_channels = local.channels

  conditions {
    display_name = each.key

    condition_matched_log {
      filter = "${each.value.filter} AND resource.labels.cluster_name=\"${var.cluster_name}\""
    }
  }

  alert_strategy {
    notification_rate_limit {
      period = "3600s"
    }
  }

  documentation {
    subject   = "[ticket] ${each.key}"
    content   = "${each.value.summary}.\n\nWhat to do: ${each.value.action}.\n\nMore: docs/on-call.md"
    mime_type = "text/markdown"
  }
}
