"""The words of mails and Slack messages, in Vietnamese and English."""

from collections.abc import Mapping
from typing import Final, Literal

from recsys.alerting.severity import Severity

Language = Literal["vi", "en"]

_TEXTS: Final[dict[str, dict[str, str]]] = {
    "vi": {
        "info": "THÔNG TIN",
        "warning": "CẢNH BÁO",
        "critical": "NGHIÊM TRỌNG",
        "resolved": "ĐÃ KHẮC PHỤC",
        "alert": "Cảnh báo: {name}",
        "alert_resolved": "Đã khắc phục: {name}",
        "open_link": "Mở lần chạy trong Airflow",
        "footer": "Gửi tự động lúc {time} bởi hệ thống giám sát gợi ý mỹ phẩm.",
        "rule_above": "{metric} = {value}, vượt ngưỡng {threshold}.",
        "rule_below": "{metric} = {value}, dưới ngưỡng {threshold}.",
        "rule_cleared": "{metric} = {value}, đã trở lại trong ngưỡng {threshold}.",
        "failed": "Pipeline {job} thất bại",
        "task_failed": "Bước {task} của {job} thất bại sau lần thử cuối cùng.",
        "run_failed": "Lần chạy của {job} kết thúc thất bại.",
        "run_timed_out": "Lần chạy của {job} bị dừng vì vượt quá thời gian cho phép.",
        "deadline": "Pipeline {job} trễ hạn (SLA miss)",
        "deadline_text": "{job} chưa hoàn thành vào hạn {due}.",
        "pipeline_status": "Pipeline {job}: {status}",
        "silent": "Pipeline {job} im lặng",
        "silent_text": "{job} lẽ ra phải chạy thành công trước {due}, nhưng không có lần nào.",
        "silent_cleared": "{job} đã chạy thành công trở lại.",
        "unhealthy": "Hệ thống không khỏe: {component}",
        "unhealthy_text": "Kiểm tra {component} thất bại: {problem}.",
        "healthy_again": "Kiểm tra {component} đã đạt trở lại.",
        "report_overdue": "Không còn ai kiểm tra sức khỏe hệ thống",
        "report_overdue_text": "Chưa có báo cáo sức khỏe nào từ {since}. Airflow có thể đã dừng.",
        "report_again": "Báo cáo sức khỏe đã có trở lại.",
        "test": "Đây là cảnh báo thử; không cần làm gì.",
        "job": "Pipeline",
        "run_id": "Mã lần chạy",
        "run_type": "Kiểu chạy",
        "state": "Trạng thái",
        "status": "Trạng thái",
        "due": "Hạn",
        "task": "Bước lỗi",
        "error": "Lỗi",
        "reason": "Lý do",
        "log": "Log",
        "try_number": "Lần thử",
        "metric": "Chỉ số",
        "value": "Giá trị",
        "threshold": "Ngưỡng",
        "component": "Thành phần",
        "last_success": "Lần thành công gần nhất",
        "disk_free": "Ổ đĩa sắp đầy, còn trống",
        "report": "Báo cáo",
        "never": "chưa có",
    },
    "en": {
        "info": "INFO",
        "warning": "WARNING",
        "critical": "CRITICAL",
        "resolved": "RESOLVED",
        "alert": "Alert: {name}",
        "alert_resolved": "Resolved: {name}",
        "open_link": "Open the run in Airflow",
        "footer": "Sent automatically at {time} by the monitoring of the cosmetics recommender.",
        "rule_above": "{metric} = {value}, above the threshold of {threshold}.",
        "rule_below": "{metric} = {value}, below the threshold of {threshold}.",
        "rule_cleared": "{metric} = {value}, back within the threshold of {threshold}.",
        "failed": "Pipeline {job} failed",
        "task_failed": "Task {task} of {job} failed at its last try.",
        "run_failed": "A run of {job} failed.",
        "run_timed_out": "A run of {job} was stopped because it took longer than allowed.",
        "deadline": "Pipeline {job} missed its deadline (SLA miss)",
        "deadline_text": "{job} was not done when it was due at {due}.",
        "pipeline_status": "Pipeline {job}: {status}",
        "silent": "Pipeline {job} is silent",
        "silent_text": "{job} should have succeeded by {due}, and no run has.",
        "silent_cleared": "{job} has succeeded again.",
        "unhealthy": "System unhealthy: {component}",
        "unhealthy_text": "The {component} check failed: {problem}.",
        "healthy_again": "The {component} check passes again.",
        "report_overdue": "Nobody is checking the system's health",
        "report_overdue_text": "No health report has come since {since}. Airflow may be down.",
        "report_again": "Health reports are coming again.",
        "test": "This is a test alert; there is nothing to do.",
        "job": "Pipeline",
        "run_id": "Run id",
        "run_type": "Run type",
        "state": "State",
        "status": "Status",
        "due": "Due",
        "task": "Failing task",
        "error": "Error",
        "reason": "Reason",
        "log": "Log",
        "try_number": "Try",
        "metric": "Metric",
        "value": "Value",
        "threshold": "Threshold",
        "component": "Component",
        "last_success": "Last success",
        "disk_free": "Disk almost full, free",
        "report": "Report",
        "never": "never",
    },
}


class Texts:
    """The texts of one language."""

    def __init__(self, language: Language) -> None:
        self.language = language
        self._texts: Mapping[str, str] = _TEXTS[language]

    def say(self, text: str, **values: object) -> str:
        """The text called `text`, with its blanks filled in."""
        return self._texts[text].format(**values)

    def label(self, fact: str) -> str:
        """How a fact is called; facts without a translation go by their own name."""
        return self._texts.get(fact, fact)

    def severity(self, severity: Severity, *, resolved: bool) -> str:
        return self._texts["resolved" if resolved else severity.value]
